; The Windows installer: for all users of a machine, silent if asked (/S), with settings that users cannot loosen.
; makensis -DVERSION=1.2.3 -DPROGRAMS=folder -DOUT=file packaging/windows/hospes.nsi
; Parameters and exit codes: docs/install.md.

Unicode true
!include "MUI2.nsh"
!include "FileFunc.nsh"
!include "LogicLib.nsh"
!include "x64.nsh"

!ifndef VERSION | PROGRAMS | OUT
  !error "say -DVERSION=..., -DPROGRAMS=... and -DOUT=..."
!endif

!define KEY "Software\Microsoft\Windows\CurrentVersion\Uninstall\Hospes"
!define SERVICE "hospes-site"

Name "Hospes"
OutFile "${OUT}"
InstallDir "$PROGRAMFILES64\Hospes"
RequestExecutionLevel admin
SetCompressor /SOLID lzma
BrandingText "Hospes ${VERSION}"

!define MUI_ICON "..\..\icons\icon.ico"
!define MUI_UNICON "..\..\icons\icon.ico"
!insertmacro MUI_PAGE_LICENSE "..\..\LICENSE"
!insertmacro MUI_PAGE_DIRECTORY
!insertmacro MUI_PAGE_INSTFILES
!insertmacro MUI_UNPAGE_CONFIRM
!insertmacro MUI_UNPAGE_INSTFILES
!insertmacro MUI_LANGUAGE "English"
!insertmacro MUI_LANGUAGE "German"
!insertmacro MUI_LANGUAGE "French"
!insertmacro MUI_LANGUAGE "SimpChinese"

Var Managed
Var NoService
Var Purge

; Runs a command and goes on only if it ended well.
!macro Must COMMAND WHAT
  nsExec::ExecToLog `${COMMAND}`
  Pop $0
  ${If} $0 != 0
    DetailPrint "${WHAT} failed ($0)"
    SetErrorLevel 2
    Abort "${WHAT} failed"
  ${EndIf}
!macroend

Function .onInit
  ${IfNot} ${RunningX64}
    MessageBox MB_ICONSTOP "Hospes needs a 64-bit Windows." /SD IDOK
    SetErrorLevel 2
    Quit
  ${EndIf}
  SetRegView 64
  SetShellVarContext all
  ; An upgrade goes where the former version lies, unless /D says otherwise.
  ReadRegStr $0 HKLM "${KEY}" "InstallLocation"
  ${If} $0 != ""
  ${AndIf} $INSTDIR == "$PROGRAMFILES64\Hospes"
    StrCpy $INSTDIR $0
  ${EndIf}
  ${GetParameters} $R0
  ClearErrors
  ${GetOptions} $R0 "/MANAGED=" $Managed
  StrCpy $NoService 0
  ClearErrors
  ${GetOptions} $R0 "/NOSERVICE" $R1
  ${IfNot} ${Errors}
    StrCpy $NoService 1
  ${EndIf}
  ${If} $Managed != ""
  ${AndIfNot} ${FileExists} "$Managed"
    MessageBox MB_ICONSTOP "$Managed is not there; nothing was installed." /SD IDOK
    SetErrorLevel 2
    Quit
  ${EndIf}
FunctionEnd

Section "Hospes"
  SetRegView 64
  SetShellVarContext all
  ; A service that goes on would start workers of the newer version; it may not be there, and then this fails.
  nsExec::ExecToLog 'net stop ${SERVICE}'
  Pop $0

  SetOutPath "$INSTDIR"
  ClearErrors
  File "${PROGRAMS}\hospes.exe"
  File "${PROGRAMS}\hospes-site.exe"
  File "${PROGRAMS}\hospesctl.exe"
  File "..\..\LICENSE"
  File "..\..\NOTICE"
  File "..\..\third-party-licences.txt"
  File "/oname=managed.toml.example" "..\managed.toml"
  ${If} ${Errors}
    SetErrorLevel 2
    Abort "The programs could not be replaced; close Hospes and try again."
  ${EndIf}
  CreateShortcut "$SMPROGRAMS\Hospes.lnk" "$INSTDIR\hospes.exe"

  ; The site's data: for the system, administrators and the service. What is laid down by an administrator
  ; (managed.toml) can be read by everybody and changed by nobody else. Names of groups differ from language to language,
  ; so they are given by number: S-1-5-18 system, S-1-5-32-544 administrators, S-1-5-32-545 users.
  CreateDirectory "$APPDATA\Hospes"
  !insertmacro Must 'icacls "$APPDATA\Hospes" /inheritance:r /grant:r *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F *S-1-5-32-545:RX' "Protecting the data folder"
  CreateDirectory "$APPDATA\Hospes\site"
  ${If} $Managed != ""
    ClearErrors
    CopyFiles /SILENT "$Managed" "$APPDATA\Hospes\managed.toml"
    ${If} ${Errors}
      SetErrorLevel 2
      Abort "$Managed could not be copied."
    ${EndIf}
    !insertmacro Must 'icacls "$APPDATA\Hospes\managed.toml" /inheritance:r /grant:r *S-1-5-18:F *S-1-5-32-544:F *S-1-5-32-545:R' "Protecting managed.toml"
  ${EndIf}

  ${If} $NoService == 0
    ; An account of its own, which Windows makes with the service: no password, no rights beyond its own folder.
    nsExec::ExecToLog 'sc query ${SERVICE}'
    Pop $0
    ${If} $0 != 0
      !insertmacro Must 'sc create ${SERVICE} binPath= "\"$INSTDIR\hospes-site.exe\" --data \"$APPDATA\Hospes\site\" run" start= delayed-auto obj= "NT SERVICE\${SERVICE}" DisplayName= "Hospes"' "Making the service"
    ${Else}
      !insertmacro Must 'sc config ${SERVICE} binPath= "\"$INSTDIR\hospes-site.exe\" --data \"$APPDATA\Hospes\site\" run"' "Changing the service"
    ${EndIf}
    !insertmacro Must 'sc sidtype ${SERVICE} unrestricted' "Naming the service's account"
    !insertmacro Must 'sc failure ${SERVICE} reset= 300 actions= restart/5000/restart/5000/restart/60000' "Setting the service's restarts"
    !insertmacro Must 'icacls "$APPDATA\Hospes\site" /inheritance:r /grant:r *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F "NT SERVICE\${SERVICE}:(OI)(CI)F"' "Protecting the site's folder"
    ; Without a site there is nothing to run, and it ends at once: no reason to undo the installation.
    nsExec::ExecToLog 'net start ${SERVICE}'
    Pop $0
  ${EndIf}

  WriteUninstaller "$INSTDIR\uninstall.exe"
  WriteRegStr HKLM "${KEY}" "DisplayName" "Hospes"
  WriteRegStr HKLM "${KEY}" "DisplayVersion" "${VERSION}"
  WriteRegStr HKLM "${KEY}" "Publisher" "The Hospes maintainers"
  WriteRegStr HKLM "${KEY}" "DisplayIcon" "$INSTDIR\hospes.exe"
  WriteRegStr HKLM "${KEY}" "InstallLocation" "$INSTDIR"
  WriteRegStr HKLM "${KEY}" "UninstallString" '"$INSTDIR\uninstall.exe"'
  WriteRegStr HKLM "${KEY}" "QuietUninstallString" '"$INSTDIR\uninstall.exe" /S'
  WriteRegDWORD HKLM "${KEY}" "NoModify" 1
  WriteRegDWORD HKLM "${KEY}" "NoRepair" 1
  ${GetSize} "$INSTDIR" "/S=0K" $0 $1 $2
  WriteRegDWORD HKLM "${KEY}" "EstimatedSize" $0
SectionEnd

Function un.onInit
  SetRegView 64
  SetShellVarContext all
  StrCpy $Purge 0
  ${GetParameters} $R0
  ClearErrors
  ${GetOptions} $R0 "/PURGE" $R1
  ${IfNot} ${Errors}
    StrCpy $Purge 1
  ${EndIf}
FunctionEnd

Section "Uninstall"
  SetRegView 64
  SetShellVarContext all
  nsExec::ExecToLog 'net stop ${SERVICE}'
  Pop $0
  nsExec::ExecToLog 'sc delete ${SERVICE}'
  Pop $0
  Delete "$SMPROGRAMS\Hospes.lnk"
  Delete "$INSTDIR\hospes.exe"
  Delete "$INSTDIR\hospes-site.exe"
  Delete "$INSTDIR\hospesctl.exe"
  Delete "$INSTDIR\LICENSE"
  Delete "$INSTDIR\NOTICE"
  Delete "$INSTDIR\third-party-licences.txt"
  Delete "$INSTDIR\managed.toml.example"
  Delete "$INSTDIR\uninstall.exe"
  ; Not with everything in it: somebody may have chosen a folder that holds more.
  RMDir "$INSTDIR"
  DeleteRegKey HKLM "${KEY}"
  ; The site's audit log, keys and data go only if that was asked for.
  ${If} $Purge == 1
    RMDir /r "$APPDATA\Hospes"
  ${EndIf}
SectionEnd
